"""The filters and tests of templates, with Ansible's semantics.

`table.FILTERS` and `table.TESTS` hold all of them; `base.Filter` says of each how it takes secrets and
undefined values. What a filter's result can cost is checked here before it is made; the rest is counted by
`fazai.template`.
"""
