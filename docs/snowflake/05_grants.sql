-- What the services may do. Everything that is not granted here is denied; nothing is granted to PUBLIC. tests/workers/test_account.py
-- holds this file against what each role is for. ALL is what is there, FUTURE what will come: both are needed.
use role securityadmin;

-- The loader writes raw rows. It updates offsets, so it may update; it never deletes, and reads nothing but what it wrote.
grant usage on warehouse ${prefix}_LOADING to role ${prefix}_LOADER;
grant usage on database ${database} to role ${prefix}_LOADER;
grant usage on schema ${database}.RAW to role ${prefix}_LOADER;
-- For a table that a release adds. What the loader makes itself it owns; 04_raw_tables.sql made the rest before it came.
grant create table on schema ${database}.RAW to role ${prefix}_LOADER;
grant create stage on schema ${database}.RAW to role ${prefix}_LOADER;
grant read, write on stage ${database}.RAW.LOADING to role ${prefix}_LOADER;
grant select, insert, update on all tables in schema ${database}.RAW to role ${prefix}_LOADER;
grant select, insert, update on future tables in schema ${database}.RAW to role ${prefix}_LOADER;

-- Retention removes raw rows, and needs to see which.
grant usage on warehouse ${prefix}_LOADING to role ${prefix}_RETENTION;
grant usage on database ${database} to role ${prefix}_RETENTION;
grant usage on schema ${database}.RAW to role ${prefix}_RETENTION;
grant select, delete on all tables in schema ${database}.RAW to role ${prefix}_RETENTION;
grant select, delete on future tables in schema ${database}.RAW to role ${prefix}_RETENTION;

-- The transformer reads raw, makes whatever dbt makes, and the clones of new versions.
grant usage on warehouse ${prefix}_TRANSFORMING to role ${prefix}_TRANSFORMER;
grant usage on database ${database} to role ${prefix}_TRANSFORMER;
grant usage on schema ${database}.RAW to role ${prefix}_TRANSFORMER;
grant select on all tables in schema ${database}.RAW to role ${prefix}_TRANSFORMER;
grant select on future tables in schema ${database}.RAW to role ${prefix}_TRANSFORMER;
grant usage, create table, create view on schema ${database}.STAGING to role ${prefix}_TRANSFORMER;
grant usage, create table, create view on schema ${database}.MARTS to role ${prefix}_TRANSFORMER;
grant usage, create table, create view on schema ${database}.ML to role ${prefix}_TRANSFORMER;
grant usage, create table, create view on schema ${database}.SNAPSHOTS to role ${prefix}_TRANSFORMER;
grant usage, create table, create view on schema ${database}.TEST_FAILURES to role ${prefix}_TRANSFORMER;
grant create schema on database ${database} to role ${prefix}_TRANSFORMER;

-- The service reads versions. A clone keeps the rights on its tables, but not the right to enter the schema: so the service may
-- select from what is cloned from MARTS, and enter what is made after this; it cannot enter MARTS itself, nor any other
-- schema of a build, where it has no right on a table either.
grant usage on warehouse ${prefix}_SERVING to role ${prefix}_SERVER;
grant usage on database ${database} to role ${prefix}_SERVER;
grant usage on future schemas in database ${database} to role ${prefix}_SERVER;
grant select on all tables in schema ${database}.MARTS to role ${prefix}_SERVER;
grant select on future tables in schema ${database}.MARTS to role ${prefix}_SERVER;
