-- Edition: enterprise
-- What of a person is shown. The mask hangs on the tag, so a column that is tagged is masked, and a clone keeps both. The
-- services see what is there (the service masks by its own policy.yml); analysts see a pseudonym in place of an identifier,
-- the same in every table, so that joins and distinct counts hold; everybody else, owners and administrators too, sees nothing.
use role accountadmin;

grant apply masking policy on account to role ${prefix}_OWNER;

use role ${prefix}_OWNER;

use warehouse ${prefix}_LOADING;

-- The pseudonyms' secret is made here, in the account, and read by the policies alone.
create table if not exists ${database}.GOVERNANCE.PSEUDONYM_KEYS (SECRET varchar not null);
insert into ${database}.GOVERNANCE.PSEUDONYM_KEYS (SECRET)
    select uuid_string() || uuid_string()
    where not exists (select 1 from ${database}.GOVERNANCE.PSEUDONYM_KEYS);

-- Made closed, then given their bodies: ALTER is what changes a policy that is in use.
create masking policy if not exists ${database}.GOVERNANCE.MASK_TEXT as (VALUE varchar) returns varchar -> null;
create masking policy if not exists ${database}.GOVERNANCE.MASK_NUMBER as (VALUE number) returns number -> null;

alter masking policy ${database}.GOVERNANCE.MASK_TEXT set body ->
    case
        when is_role_in_session('${prefix}_SERVER') or is_role_in_session('${prefix}_TRANSFORMER')
            or is_role_in_session('${prefix}_LOADER') or is_role_in_session('${prefix}_RETENTION') then VALUE
        when not is_role_in_session('${analyst}') then null
        when system$get_tag_on_current_column('${database}.GOVERNANCE.PERSONAL_DATA') = 'attribute' then VALUE
        when system$get_tag_on_current_column('${database}.GOVERNANCE.PERSONAL_DATA') = 'identifier'
            then sha2((select max(SECRET) from ${database}.GOVERNANCE.PSEUDONYM_KEYS) || ':' || VALUE, 256)
        else null
    end;

-- 60 bits of the hash, which a number can hold.
alter masking policy ${database}.GOVERNANCE.MASK_NUMBER set body ->
    case
        when is_role_in_session('${prefix}_SERVER') or is_role_in_session('${prefix}_TRANSFORMER')
            or is_role_in_session('${prefix}_LOADER') or is_role_in_session('${prefix}_RETENTION') then VALUE
        when not is_role_in_session('${analyst}') then null
        when system$get_tag_on_current_column('${database}.GOVERNANCE.PERSONAL_DATA') = 'attribute' then VALUE
        when system$get_tag_on_current_column('${database}.GOVERNANCE.PERSONAL_DATA') = 'identifier'
            then to_number(
                left(sha2((select max(SECRET) from ${database}.GOVERNANCE.PSEUDONYM_KEYS) || ':' || to_varchar(VALUE), 256), 15),
                'XXXXXXXXXXXXXXX'
            )
        else null
    end;

-- FORCE: the same again is no error.
alter tag ${database}.GOVERNANCE.PERSONAL_DATA set
    masking policy ${database}.GOVERNANCE.MASK_TEXT, masking policy ${database}.GOVERNANCE.MASK_NUMBER force;
