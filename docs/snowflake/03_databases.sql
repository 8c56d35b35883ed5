-- Where things are. Two databases: in the first one builds, and no reader has any right there; the second holds published
-- versions, a schema each, and nothing else. So "may read what is published" is a right on a database, that no new
-- schema of a build can fall under. Managed access: whoever makes a table may not hand out rights on it.
use role ${prefix}_OWNER;

-- Raw rows and builds.
create database if not exists ${database};
-- Rows as they came; written by the loader.
create schema if not exists ${database}.RAW;
alter schema ${database}.RAW enable managed access;
-- dbt: one view for each source.
create schema if not exists ${database}.STAGING;
alter schema ${database}.STAGING enable managed access;
-- dbt: what is copied into a version.
create schema if not exists ${database}.MARTS;
alter schema ${database}.MARTS enable managed access;
-- dbt: segments, as a seed.
create schema if not exists ${database}.ML;
alter schema ${database}.ML enable managed access;
-- dbt: history of customers.
create schema if not exists ${database}.SNAPSHOTS;
alter schema ${database}.SNAPSHOTS enable managed access;
-- dbt: rows that failed a test, of the last build.
create schema if not exists ${database}.TEST_FAILURES;
alter schema ${database}.TEST_FAILURES enable managed access;
-- Tags, policies, and who may see which rows.
create schema if not exists ${database}.GOVERNANCE;
alter schema ${database}.GOVERNANCE enable managed access;

-- Published versions, a schema each.
create database if not exists ${published};
