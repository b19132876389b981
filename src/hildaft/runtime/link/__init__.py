"""The link between workers and a learner: wire, spool, intake, server and client. No torch."""
