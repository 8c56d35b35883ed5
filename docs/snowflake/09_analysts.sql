-- Edition: enterprise
-- What analysts may do: read what is published, through masks and row filters, on a warehouse of their own. After those, and
-- not at all where the edition has none: nobody reads customers as they are.
use role securityadmin;

grant usage on warehouse ${prefix}_ANALYSIS to role ${analyst};
grant usage on database ${published} to role ${analyst};
grant usage on all schemas in database ${published} to role ${analyst};
grant usage on future schemas in database ${published} to role ${analyst};
grant select on all tables in database ${published} to role ${analyst};
grant select on future tables in database ${published} to role ${analyst};
