"""Tools that look into finished runs."""
