#!/usr/bin/env bash
# Blue-green release of the service. `release.sh deploy IMAGE` starts IMAGE in the slot that is not live, waits until it
# answers, then sends the traffic there; `release.sh rollback` sends it back to the slot before, which goes on running;
# `release.sh status` says which is live.
set -euo pipefail
cd "$(dirname "$0")"
namespace=marketing-insight
cluster() { kubectl --namespace "$namespace" "$@"; }
live() { cluster get service insight-api --output 'jsonpath={.spec.selector.slot}'; }
other() { if [[ $1 == blue ]]; then echo green; else echo blue; fi; }

wait_until_ready() { cluster rollout status "deployment/insight-api-$1" --timeout 300s; }

send_traffic_to() {
  cluster patch service insight-api --type merge --patch "{\"spec\": {\"selector\": {\"app\": \"insight-api\", \"slot\": \"$1\"}}}"
  echo "live: $1"
}

case "${1:-}" in
  deploy)
    image=${2:?"usage: release.sh deploy IMAGE"}
    slot=$(other "$(live)")
    kubectl kustomize "$slot" | sed "s|image: marketing-insight\$|image: $image|" | cluster apply --filename -
    # A slot that does not get ready gets no traffic; the live one has served all the while.
    wait_until_ready "$slot"
    send_traffic_to "$slot"
    cluster set image deployment/insight-stream "stream=$image"
    cluster set image cronjob/insight-pipeline "pipeline=$image"
    ;;
  rollback)
    slot=$(other "$(live)")
    wait_until_ready "$slot"
    send_traffic_to "$slot"
    ;;
  status) echo "live: $(live)" ;;
  *)
    echo "usage: release.sh deploy IMAGE | rollback | status" >&2
    exit 2
    ;;
esac
