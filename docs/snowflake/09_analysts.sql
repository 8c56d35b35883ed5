-- Edition: enterprise
-- What analysts may do: read versions, as the service does, through masks and row filters, on a warehouse of their own. After
-- those, and not at all where the edition has none: nobody reads customers as they are.
use role securityadmin;

grant usage on warehouse ${prefix}_ANALYSIS to role ${analyst};
grant usage on database ${database} to role ${analyst};
grant usage on future schemas in database ${database} to role ${analyst};
grant select on all tables in schema ${database}.MARTS to role ${analyst};
grant select on future tables in schema ${database}.MARTS to role ${analyst};
