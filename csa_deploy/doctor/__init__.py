"""What this machine can do and lacks, and the installation of what it lacks."""

from csa_deploy.doctor.diagnosis import Probe, diagnose

__all__ = ["Probe", "diagnose"]
