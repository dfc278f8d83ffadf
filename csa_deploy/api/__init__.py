"""The public Python API: functions on graphs, networks and data, with typed results; ``import csa_deploy`` offers them.

``graphs`` works in memory; ``stages`` and ``measuring`` run the pipeline's stages, in a workspace that is removed
afterwards or in the one that is given. ``given`` reads the arguments, ``staging`` opens the workspaces.
"""
