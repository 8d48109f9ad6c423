"""What reaches alerts from outside: the result topics (`sink`) and HTTP (`http/`)."""
