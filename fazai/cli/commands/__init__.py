"""One module a command of `fazai`; `fazai.cli.main` imports it when the command is called."""
