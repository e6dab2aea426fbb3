"""Signing in: passwords with codes, passkeys, sessions, tokens, and the links that start or restore an account."""
