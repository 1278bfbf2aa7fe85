"""The page's server: routes, sessions' folders, pictures, files to download."""
