"""What everything rests on: settings and registries, files, random numbers, costs, progress, this machine.

Knows nothing of learning: no data, no network, no attack. Add here what two rooms need and neither owns.
A component of any family is frozen `settings.Settings` with a name; `components.Registry` finds it by that name.
"""
