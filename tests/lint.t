#!/bin/bash
# The scripts, manual pages and sources keep the rules of scripts/lint.
exec scripts/lint
