"""Tools that analyze finished runs."""
