-- Edition: enterprise
-- Where data comes from and what it is. Tags are what lineage, bills and audits are grouped by: ACCOUNT_USAGE.ACCESS_HISTORY
-- says which column was made of which and who read it, TAG_REFERENCES what those columns are.
use role accountadmin;

grant apply tag on account to role ${prefix}_OWNER;

use role ${prefix}_OWNER;

create tag if not exists ${database}.GOVERNANCE.DATA_LAYER
    allowed_values 'raw', 'staging', 'mart', 'history', 'quality', 'governance'
    comment = 'How far data is from its source';
create tag if not exists ${database}.GOVERNANCE.WORKLOAD
    allowed_values 'loading', 'transforming', 'serving', 'analysis'
    comment = 'What a warehouse is paid for';
create tag if not exists ${database}.GOVERNANCE.PERSONAL_DATA
    allowed_values 'identifier', 'attribute', 'free_text'
    comment = 'Tells people apart; says something of one; may hold anything';

alter schema ${database}.RAW set tag ${database}.GOVERNANCE.DATA_LAYER = 'raw';
alter schema ${database}.STAGING set tag ${database}.GOVERNANCE.DATA_LAYER = 'staging';
alter schema ${database}.MARTS set tag ${database}.GOVERNANCE.DATA_LAYER = 'mart';
alter schema ${database}.ML set tag ${database}.GOVERNANCE.DATA_LAYER = 'mart';
alter schema ${database}.SNAPSHOTS set tag ${database}.GOVERNANCE.DATA_LAYER = 'history';
alter schema ${database}.TEST_FAILURES set tag ${database}.GOVERNANCE.DATA_LAYER = 'quality';
alter schema ${database}.GOVERNANCE set tag ${database}.GOVERNANCE.DATA_LAYER = 'governance';

alter warehouse ${prefix}_LOADING set tag ${database}.GOVERNANCE.WORKLOAD = 'loading';
alter warehouse ${prefix}_TRANSFORMING set tag ${database}.GOVERNANCE.WORKLOAD = 'transforming';
alter warehouse ${prefix}_SERVING set tag ${database}.GOVERNANCE.WORKLOAD = 'serving';
alter warehouse ${prefix}_ANALYSIS set tag ${database}.GOVERNANCE.WORKLOAD = 'analysis';

-- Columns of the marts carry theirs from dbt, which makes the tables anew (dbt/macros/protect_personal_data.sql).
alter table ${database}.RAW.CUSTOMERS modify column CUSTOMER_ID set tag ${database}.GOVERNANCE.PERSONAL_DATA = 'identifier';
alter table ${database}.RAW.CUSTOMERS modify column GENDER set tag ${database}.GOVERNANCE.PERSONAL_DATA = 'attribute';
alter table ${database}.RAW.CUSTOMERS modify column LOCATION set tag ${database}.GOVERNANCE.PERSONAL_DATA = 'attribute';
alter table ${database}.RAW.CUSTOMERS modify column TENURE_MONTHS set tag ${database}.GOVERNANCE.PERSONAL_DATA = 'attribute';
alter table ${database}.RAW.ONLINE_SALES modify column CUSTOMER_ID set tag ${database}.GOVERNANCE.PERSONAL_DATA = 'identifier';
alter table ${database}.RAW.SALES_EVENTS modify column PAYLOAD set tag ${database}.GOVERNANCE.PERSONAL_DATA = 'free_text';
alter table ${database}.RAW.REJECTED_RECORDS modify column RAW_VALUE set tag ${database}.GOVERNANCE.PERSONAL_DATA = 'free_text';

grant usage on schema ${database}.GOVERNANCE to role ${prefix}_TRANSFORMER;
grant apply on tag ${database}.GOVERNANCE.PERSONAL_DATA to role ${prefix}_TRANSFORMER;
