-- How long what was changed or dropped can be brought back. Fail-safe adds seven days that nobody can shorten, in which
-- Snowflake alone could; so a row that `insight retention apply` removed is gone after both (docs/snowflake.md, Retention).
use role ${prefix}_OWNER;

-- A purge or a load that was a mistake is noticed within days.
alter schema ${database}.RAW set data_retention_time_in_days = ${time_travel_days};
-- History cannot be built again.
alter schema ${database}.SNAPSHOTS set data_retention_time_in_days = ${time_travel_days};
-- Made of raw at every build: a day costs a copy of each. A version is a clone of MARTS, and takes its day from there.
alter schema ${database}.STAGING set data_retention_time_in_days = 1;
alter schema ${database}.MARTS set data_retention_time_in_days = 1;
alter schema ${database}.ML set data_retention_time_in_days = 1;
alter schema ${database}.GOVERNANCE set data_retention_time_in_days = ${time_travel_days};
-- Copies of rows, for the reader of a failed build; the next build replaces them.
alter schema ${database}.TEST_FAILURES set data_retention_time_in_days = 0;
