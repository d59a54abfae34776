"""Providers: one package for each sort of target; `fazai.registry` finds them here."""
