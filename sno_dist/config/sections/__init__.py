"""The sections of the config, a module each; `config.schema` puts them together."""
