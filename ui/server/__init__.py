"""The page's HTTP server: routes, handlers, examples, downloads."""
