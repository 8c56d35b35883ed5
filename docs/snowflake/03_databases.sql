-- Where things are. Two databases: in the first one builds, and no reader has any right there; the second holds published
-- versions, a schema each, and nothing else. So "may read what is published" is a right on a database, that no new
-- schema of a build can fall under. Managed access: whoever makes a table may not hand out rights on it.
use role ${prefix}_OWNER;

create database if not exists ${database} comment = 'Raw rows and builds';
create schema if not exists ${database}.RAW with managed access comment = 'Rows as they came; written by the loader';
create schema if not exists ${database}.STAGING with managed access comment = 'dbt: one view for each source';
create schema if not exists ${database}.MARTS with managed access comment = 'dbt: what is copied into a version';
create schema if not exists ${database}.ML with managed access comment = 'dbt: segments, as a seed';
create schema if not exists ${database}.SNAPSHOTS with managed access comment = 'dbt: history of customers';
create schema if not exists ${database}.TEST_FAILURES with managed access comment = 'dbt: rows that failed a test, of the last build';
create schema if not exists ${database}.GOVERNANCE with managed access comment = 'Tags, policies, and who may see which rows';

create database if not exists ${published} comment = 'Published versions, a schema each';
