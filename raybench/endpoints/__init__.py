"""Endpoints of our own: deployed, billed, torn down, and found again after a crash.

boto3 alone does it: the SageMaker SDK would add half a gigabyte and two seconds of import, and by default waits 300 s
where the service allows a container 3600 s. What is made carries two tags, and what lacks them is never deleted.
"""
