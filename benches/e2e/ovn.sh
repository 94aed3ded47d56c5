# OVN with one chassis, all of it in namespace "ovn": databases, northd, controller, and Open vSwitch with its userspace
# datapath (no kernel module is needed). Two logical switches with DHCP, and PORTS logical ports in each beside the guest's.
# A guest in namespace "logical" with interface "logical"; its other end, "port", stands in namespace "ovn".
export OVS_RUNDIR=/run/openvswitch OVN_RUNDIR=/run/ovn OVS_DBDIR=/run/lab/ovn OVN_DBDIR=/run/lab/ovn OVS_LOGDIR=/run/lab/ovn OVN_LOGDIR=/run/lab/ovn
mkdir -p $OVS_RUNDIR $OVN_RUNDIR $OVS_DBDIR
ip netns add ovn
ip netns add logical
ip -n ovn link set lo up
share=/usr/share
run() { ip netns exec ovn "$@"; }
ovsdb-tool create $OVS_DBDIR/conf.db $share/openvswitch/vswitch.ovsschema
ovsdb-tool create $OVS_DBDIR/nb.db $share/ovn/ovn-nb.ovsschema
ovsdb-tool create $OVS_DBDIR/sb.db $share/ovn/ovn-sb.ovsschema
quiet="--detach --no-chdir --verbose=off"
run ovsdb-server $OVS_DBDIR/conf.db --remote=punix:$OVS_RUNDIR/db.sock --pidfile=$OVS_RUNDIR/ovsdb-server.pid $quiet
run ovsdb-server $OVS_DBDIR/nb.db --remote=punix:$OVN_RUNDIR/ovnnb_db.sock --pidfile=$OVN_RUNDIR/nb.pid --unixctl=$OVN_RUNDIR/nb.ctl $quiet
run ovsdb-server $OVS_DBDIR/sb.db --remote=punix:$OVN_RUNDIR/ovnsb_db.sock --pidfile=$OVN_RUNDIR/sb.pid --unixctl=$OVN_RUNDIR/sb.ctl $quiet
run ovs-vsctl --no-wait init
run ovs-vsctl --no-wait set open_vswitch . external_ids:system-id=one external_ids:ovn-remote=unix:$OVN_RUNDIR/ovnsb_db.sock \
  external_ids:ovn-encap-type=geneve external_ids:ovn-encap-ip=127.0.0.1 external_ids:ovn-monitor-all=true
run ovs-vswitchd unix:$OVS_RUNDIR/db.sock --pidfile=$OVS_RUNDIR/ovs-vswitchd.pid --log-file=$OVS_LOGDIR/vswitchd.log $quiet
run ovs-vsctl --no-wait add-br br-int -- set bridge br-int datapath_type=netdev fail-mode=secure other-config:disable-in-band=true
ovn-nbctl --no-leader-only init
run ovn-northd --ovnnb-db=unix:$OVN_RUNDIR/ovnnb_db.sock --ovnsb-db=unix:$OVN_RUNDIR/ovnsb_db.sock --pidfile=$OVN_RUNDIR/northd.pid $quiet
run ovn-controller unix:$OVS_RUNDIR/db.sock --pidfile=$OVN_RUNDIR/controller.pid --log-file=$OVN_LOGDIR/controller.log $quiet
for n in 0 1; do
  ovn-nbctl ls-add ls$n
  options=$(ovn-nbctl create dhcp_options cidr=10.$n.0.0/16 options="\"server_id\"=\"10.$n.0.1\" \"server_mac\"=\"02:00:00:00:01:0$n\" \"lease_time\"=\"3600\" \"router\"=\"10.$n.0.1\"")
  eval options$n=$options
  echo "$options" > /run/lab/ovn/options$n
  i=0
  set --
  while [ $i -lt "$PORTS" ]; do
    set -- "$@" -- lsp-add ls$n other-$n-$i -- lsp-set-addresses other-$n-$i "$(printf '02:01:00:0%d:%02x:%02x 10.%d.%d.%d' $n $((i / 250)) $((i % 250)) $n $((i / 250 + 1)) $((i % 250 + 2)))"
    i=$((i + 1))
    if [ $((i % 250)) = 0 ]; then shift; ovn-nbctl "$@"; set --; fi
  done
  if [ $# -gt 0 ]; then shift; ovn-nbctl "$@"; fi
done
ip -n ovn link add port type veth peer name logical netns logical address 02:00:00:00:00:05
ip -n ovn link set port up
run ovs-vsctl add-port br-int port -- set interface port external_ids:iface-id=guest
ovn-nbctl --wait=hv lsp-add ls0 guest -- lsp-set-addresses guest "02:00:00:00:00:05 10.0.0.5" -- lsp-set-dhcpv4-options guest $options0
