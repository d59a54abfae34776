#!/bin/sh
echo '{"web": {"hosts": ["w4", "w1"]}, "_meta": {"hostvars": {"w4": {"b": 2}, "w1": {"from": "script"}, "stranger": {"x": 1}}}}'
