-- Who there is. Needs ACCOUNTADMIN once, for the rights on the account; everything after is done by the owner.
-- A service role is granted to a service user, and to no administrator: whoever runs the account does not read customers by
-- inheriting from them. The owner may grant and change, so it is nobody's everyday role.
use role useradmin;

create role if not exists ${prefix}_OWNER comment = 'Owns databases, schemas, policies and warehouses; no service signs in with it';
create role if not exists ${prefix}_LOADER comment = 'Writes raw rows: ingestion and consumers';
create role if not exists ${prefix}_TRANSFORMER comment = 'dbt: reads raw, builds marts, makes versions';
create role if not exists ${prefix}_PIPELINE comment = 'insight pipeline: loads and builds in one process';
create role if not exists ${prefix}_SERVER comment = 'The service: reads published versions, nothing else';
create role if not exists ${prefix}_RETENTION comment = 'Removes raw rows that are too old';
create role if not exists ${analyst} comment = 'People with SQL of their own: published versions, masked';

grant role ${prefix}_LOADER to role ${prefix}_PIPELINE;
grant role ${prefix}_TRANSFORMER to role ${prefix}_PIPELINE;

use role accountadmin;

grant create database on account to role ${prefix}_OWNER;
grant create warehouse on account to role ${prefix}_OWNER;
grant role ${prefix}_OWNER to role SYSADMIN;
