"""The blind human study: definition, assignment, service, API and the participant's page."""
