"""Tables, migrations and the one writer: knows nothing of pages, pictures or statistics."""
