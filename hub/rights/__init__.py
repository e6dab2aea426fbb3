"""Who may do what: one table, asked by API, pages, event streams and exports; what it does not name is refused."""
