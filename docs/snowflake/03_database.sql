-- Where things are. One database; a published version is a clone of MARTS, MARTS__<version>, that the pipeline makes.
-- Managed access: whoever makes a table may not hand out rights on it. Not MARTS: whoever clones a managed schema needs
-- rights that the pipeline should not have.
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
