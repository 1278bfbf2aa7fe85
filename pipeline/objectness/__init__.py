"""Objectness head: boxes of objects of any class from the embedded encoder's features."""
