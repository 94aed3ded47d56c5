# A Linux bridge and a dnsmasq for each of two networks: the least with which a port can be moved from one to the other.
# A guest in namespace "plain" with interface "plain"; its other end, "port", stands in namespace "switch".
ip netns add switch
ip netns add plain
ip -n switch link set lo up
ip -n switch link add port type veth peer name plain netns plain address 02:00:00:00:00:05
for n in 0 1; do
  ip -n switch link add br$n type bridge forward_delay 0 stp_state 0
  ip -n switch address add 10.0.$n.1/24 dev br$n
  ip -n switch link set br$n up
done
ip -n switch link set port master br0 up
for n in 0 1; do
  # --no-ping: else it asks for three seconds whether an address is free before it offers it.
  ip netns exec switch dnsmasq --conf-file=/dev/null --port=0 --interface=br$n --bind-interfaces --except-interface=lo \
    --dhcp-range=10.0.$n.0,static,1h --dhcp-host=02:00:00:00:00:05,10.0.$n.5 --dhcp-authoritative --no-ping --quiet-dhcp \
    --dhcp-leasefile=/run/lab/dnsmasq$n.leases --pid-file=/run/lab/dnsmasq$n.pid --user=root
done
