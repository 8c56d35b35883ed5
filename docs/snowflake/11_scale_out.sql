-- Edition: enterprise
-- More clusters of the same size while many ask at once, each for as long as it is needed.
use role ${prefix}_OWNER;

alter warehouse ${prefix}_SERVING set min_cluster_count = 1 max_cluster_count = 3 scaling_policy = 'STANDARD';
