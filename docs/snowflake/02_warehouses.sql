-- What computes, and what it may cost. One warehouse for each kind of work, so that a build never slows an answer and
-- each has its own line on the bill. All start suspended; sizes are for millions of lines (docs/snowflake.md has those
-- for a billion). CREATE makes what is missing, ALTER brings what is there to what stands here.
use role ${prefix}_OWNER;

-- A minute, as each start is billed for one.
create warehouse if not exists ${prefix}_LOADING warehouse_size = 'XSMALL' initially_suspended = true;
alter warehouse ${prefix}_LOADING set
    warehouse_size = 'XSMALL' auto_suspend = 60 auto_resume = true
    statement_timeout_in_seconds = 1800 statement_queued_timeout_in_seconds = 600
    comment = 'Ingestion, consumers, retention';

create warehouse if not exists ${prefix}_TRANSFORMING warehouse_size = 'SMALL' initially_suspended = true;
alter warehouse ${prefix}_TRANSFORMING set
    warehouse_size = 'SMALL' auto_suspend = 60 auto_resume = true
    statement_timeout_in_seconds = 7200 statement_queued_timeout_in_seconds = 1800
    comment = 'dbt builds and tests, publication';

-- Five minutes: a suspended warehouse loses the tables that it keeps on its disks, and the next answer is slow.
create warehouse if not exists ${prefix}_SERVING warehouse_size = 'XSMALL' initially_suspended = true;
alter warehouse ${prefix}_SERVING set
    warehouse_size = 'XSMALL' auto_suspend = 300 auto_resume = true
    statement_timeout_in_seconds = 600 statement_queued_timeout_in_seconds = 30
    comment = 'Questions to the service';

create warehouse if not exists ${prefix}_ANALYSIS warehouse_size = 'XSMALL' initially_suspended = true;
alter warehouse ${prefix}_ANALYSIS set
    warehouse_size = 'XSMALL' auto_suspend = 60 auto_resume = true
    statement_timeout_in_seconds = 600 statement_queued_timeout_in_seconds = 60
    comment = 'SQL of analysts';

-- Only ACCOUNTADMIN makes monitors. Loading and building stop at the quota, as tomorrow does for them; serving is told of,
-- and stopped only where something runs away. Without notified users, administrators who asked for it are told.
use role accountadmin;

create resource monitor if not exists ${prefix}_BUILDING_MONTHLY with
    credit_quota = 150 frequency = monthly start_timestamp = immediately
    triggers on 75 percent do notify on 100 percent do suspend;
alter resource monitor ${prefix}_BUILDING_MONTHLY set
    credit_quota = 150
    triggers on 75 percent do notify on 100 percent do suspend;
alter warehouse ${prefix}_LOADING set resource_monitor = ${prefix}_BUILDING_MONTHLY;
alter warehouse ${prefix}_TRANSFORMING set resource_monitor = ${prefix}_BUILDING_MONTHLY;

create resource monitor if not exists ${prefix}_READING_MONTHLY with
    credit_quota = 400 frequency = monthly start_timestamp = immediately
    triggers on 75 percent do notify on 100 percent do notify on 150 percent do suspend_immediate;
alter resource monitor ${prefix}_READING_MONTHLY set
    credit_quota = 400
    triggers on 75 percent do notify on 100 percent do notify on 150 percent do suspend_immediate;
alter warehouse ${prefix}_SERVING set resource_monitor = ${prefix}_READING_MONTHLY;
alter warehouse ${prefix}_ANALYSIS set resource_monitor = ${prefix}_READING_MONTHLY;
