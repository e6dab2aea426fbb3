-- What the audit says of one announcement, order or span of time is found without reading all of it.
CREATE INDEX audit_by_subject ON audit (subject);
