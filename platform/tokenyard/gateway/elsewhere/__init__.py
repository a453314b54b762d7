"""Model servers elsewhere: they are made to take, answer and count as our replicas do."""
