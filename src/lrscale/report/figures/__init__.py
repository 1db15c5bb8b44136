"""The figures of an answer. Only this folder imports matplotlib."""
