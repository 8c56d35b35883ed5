-- Edition: enterprise
-- Which rows an analyst sees: those of the locations that ROW_ENTITLEMENTS names for one of the roles in use, * for all.
-- A role without a row sees none. The service filters by its own policy.yml, so it sees all. A role for Chicago alone:
--   insert into GOVERNANCE.ROW_ENTITLEMENTS (ROLE_NAME, LOCATION) values ('ANALYST_CHICAGO', 'Chicago');
-- dbt puts the policies on the marts (dbt/macros/protect_personal_data.sql); a version is a clone, and keeps them.
use role accountadmin;

grant apply row access policy on account to role ${prefix}_OWNER;

use role ${prefix}_OWNER;

use warehouse ${prefix}_LOADING;

create table if not exists ${database}.GOVERNANCE.ROW_ENTITLEMENTS (ROLE_NAME varchar not null, LOCATION varchar not null);
insert into ${database}.GOVERNANCE.ROW_ENTITLEMENTS (ROLE_NAME, LOCATION)
    select '${analyst}', '*'
    where not exists (select 1 from ${database}.GOVERNANCE.ROW_ENTITLEMENTS where ROLE_NAME = '${analyst}');

create row access policy if not exists ${database}.GOVERNANCE.ROWS_BY_LOCATION as (ROW_LOCATION varchar) returns boolean -> false;
create row access policy if not exists ${database}.GOVERNANCE.ROWS_OF_EVERYBODY as (ROW_CUSTOMER_ID number) returns boolean -> false;

alter row access policy ${database}.GOVERNANCE.ROWS_BY_LOCATION set body ->
    is_role_in_session('${prefix}_SERVER') or is_role_in_session('${prefix}_TRANSFORMER')
    or exists (
        select 1 from ${database}.GOVERNANCE.ROW_ENTITLEMENTS
        where is_role_in_session(ROLE_NAME) and (LOCATION = '*' or LOCATION = ROW_LOCATION)
    );

-- Facts carry no location. Whoever may not see all of them sees none, rather than sums over other people's regions, and
-- asks the service, whose row filters hold for every metric.
alter row access policy ${database}.GOVERNANCE.ROWS_OF_EVERYBODY set body ->
    is_role_in_session('${prefix}_SERVER') or is_role_in_session('${prefix}_TRANSFORMER')
    or exists (
        select 1 from ${database}.GOVERNANCE.ROW_ENTITLEMENTS
        where is_role_in_session(ROLE_NAME) and LOCATION = '*'
    );

grant apply on row access policy ${database}.GOVERNANCE.ROWS_BY_LOCATION to role ${prefix}_TRANSFORMER;
grant apply on row access policy ${database}.GOVERNANCE.ROWS_OF_EVERYBODY to role ${prefix}_TRANSFORMER;
