"""Rows of interfaces, routing, services and access."""

from __future__ import annotations

from fazai.providers.opnsense.catalogue.rows import PLAIN, KindRow, verbs_of

NETWORK: tuple[KindRow, ...] = (
    KindRow(
        short="vlan",
        unique=("vlanif",),
        path="interfaces/vlan_settings",
        label="{if} tag {tag}",
        phase=20,
        summary="A VLAN on a parent interface.",
        example="opnsense.vlan: {if: vtnet3, tag: 100, descr: guest}",
    ),
    KindRow(
        short="vip",
        unique=("vhid",),
        path="interfaces/vip_settings",
        label="{interface} {network}",
        phase=30,
        omit=("subnet", "subnet_bits"),
        summary="A virtual IP address: alias, CARP or proxy ARP.",
        example="opnsense.vip: {interface: lan, mode: ipalias, network: 192.168.1.5/32}",
    ),
    KindRow(
        short="gateway",
        path="routing/settings",
        root="gateway_item",
        verbs=verbs_of("Gateway"),
        label="{name}",
        phase=40,
        summary="A gateway. Its name cannot be changed.",
        example="opnsense.gateway: {name: LAB_GW, interface: lan, ipprotocol: inet, gateway: 192.168.1.254}",
    ),
    KindRow(
        short="route",
        path="routes/routes",
        verbs=verbs_of("route"),
        label="{network}",
        tiebreak=("gateway",),
        phase=45,
        summary="A static route through a gateway.",
        example="opnsense.route: {network: 172.16.0.0/12, gateway: WAN_GW, descr: lab nets}",
    ),
    KindRow(
        short="shaper_pipe",
        path="trafficshaper/settings",
        verbs=verbs_of("Pipe", "Pipes"),
        label="{description}",
        phase=70,
        create="add",
        mark_field="description",
        omit=("number", "origin"),
        summary=(
            "A pipe of the traffic shaper. Its description carries the owner's mark, as that of cron jobs."
        ),
        example="opnsense.shaper_pipe: {description: guests, bandwidth: 20, bandwidthMetric: Mbit}",
    ),
)

SERVICE_KINDS: tuple[KindRow, ...] = (
    KindRow(
        short="unbound_host",
        children="opnsense.unbound_alias",
        called="{hostname}.{domain}",
        path="unbound/settings",
        verbs=verbs_of("HostOverride"),
        label="{hostname}.{domain} {rr} {mx}{txtdata}",
        tiebreak=("server",),
        phase=90,
        summary=(
            "A host override of Unbound DNS. Several of one name and record type are told apart by their"
            " server."
        ),
        example=(
            "opnsense.unbound_host: {hostname: nas, domain: home.example.org, rr: A, server: 192.168.1.40}"
        ),
    ),
    KindRow(
        short="unbound_alias",
        path="unbound/settings",
        verbs=verbs_of("HostAlias"),
        label="{hostname}.{domain}",
        tiebreak=("host",),
        phase=91,
        summary="Another name for a host override of Unbound DNS; `host` is that host's `name.domain`.",
        example=(
            "opnsense.unbound_alias: {host: nas.home.example.org, hostname: files, domain: home.example.org}"
        ),
    ),
    KindRow(
        short="unbound_forward",
        path="unbound/settings",
        root="dot",
        verbs=verbs_of("Forward"),
        label="{domain} to {server}",
        tiebreak=("port",),
        phase=92,
        summary="A server that Unbound DNS asks, for one domain or for everything, without encryption.",
        example="opnsense.unbound_forward: {domain: corp.example.org, server: 10.1.1.53, port: 53}",
    ),
    KindRow(
        short="unbound_dot",  # one store with the forwards, and the controller's verbs decide the type
        path="unbound/settings",
        verbs=verbs_of("Dot"),
        label="{domain} to {server}",
        tiebreak=("port",),
        phase=92,
        summary="A server that Unbound DNS asks over TLS, for one domain or for everything.",
        example="opnsense.unbound_dot: {server: 9.9.9.9, port: 853, verify: dns.quad9.net}",
    ),
    KindRow(
        short="unbound_acl",
        path="unbound/settings",
        verbs=verbs_of("Acl"),
        label="{name}",
        phase=93,
        summary="Who may ask Unbound DNS.",
        example="opnsense.unbound_acl: {name: lan, action: allow, networks: [192.168.1.0/24]}",
    ),
    KindRow(
        short="cron_job",
        path="cron/settings",
        verbs=verbs_of("Job", "Jobs"),
        label="{description}",
        phase=100,
        create="add",
        mark_field="description",
        omit=("origin",),
        summary=(
            "A scheduled command. The firewall chooses its uuid, so the description carries the owner's mark."
        ),
        example=(
            "opnsense.cron_job: {description: update check, command: firmware poll, minutes: 5, hours: 3}"
        ),
    ),
    KindRow(
        short="syslog_destination",
        path="syslog/settings",
        verbs=verbs_of("Destination", "Destinations"),
        label="{hostname}:{port} {transport}",
        tiebreak=("description", "program", "facility", "level"),
        phase=101,
        summary="A remote syslog server.",
        example="opnsense.syslog_destination: {hostname: 192.168.1.60, transport: udp4, level: [warn, err]}",
    ),
    KindRow(
        short="kea_subnet",
        path="kea/dhcpv4",
        root="subnet4",
        verbs=verbs_of("Subnet"),
        label="{subnet}",
        phase=102,
        omit=("subnet_id",),
        summary="A DHCPv4 subnet of Kea.",
        example=(
            "opnsense.kea_subnet: {subnet: 192.168.1.0/24, pools: [192.168.1.100-192.168.1.199],\n"
            "                      option_data: {routers: [192.168.1.1]}, option_data_autocollect: false}"
        ),
    ),
    KindRow(
        short="kea_reservation",
        unique=("ip_address",),
        path="kea/dhcpv4",
        verbs=verbs_of("Reservation"),
        label="{hw_address}",
        tiebreak=("subnet",),
        phase=103,
        summary="A DHCPv4 reservation of Kea.",
        example=(
            'opnsense.kea_reservation: {subnet: 192.168.1.0/24, hw_address: "52:54:00:11:22:33",\n'
            "                           ip_address: 192.168.1.200, hostname: printer}"
        ),
    ),
    KindRow(
        short="dnsmasq_host",
        path="dnsmasq/settings",
        verbs=verbs_of("Host"),
        label="{host}.{domain}",
        phase=104,
        summary="A host of Dnsmasq (DNS name and DHCP reservation).",
        example="opnsense.dnsmasq_host: {host: printer, domain: lan.example.org, ip: [192.168.1.201]}",
    ),
    KindRow(
        short="monit_test",
        path="monit/settings",
        verbs=verbs_of("Test"),
        label="{name}",
        phase=105,
        summary="A test of Monit.",
        example=(
            "opnsense.monit_test: {name: DiskFull, type: SpaceUsage, condition: space usage > "
            "90%, action: alert}"
        ),
    ),
    KindRow(
        short="monit_service",
        path="monit/settings",
        verbs=verbs_of("Service"),
        label="{name}",
        phase=106,
        self_reference="depends",
        summary="A service that Monit watches.",
        example=(
            "opnsense.monit_service: {name: datadisk, enabled: true, type: filesystem, path: /data,\n"
            "                         tests: [SpaceUsage]}"
        ),
    ),
)

ACCESS: tuple[KindRow, ...] = (
    KindRow(
        short="user",
        path="auth/user",
        verbs=PLAIN,
        label="{name}",
        phase=110,
        own_privilege="page-system-usermanager",
        protected=("root",),
        needed_on_create=("password",),
        undo=(("scrambled_password", "1"),),
        omit=("uid", "scope", "pwd_changed_at", "apikeys", "dashboard"),
        summary="A local user. The password is set when the user is created and never compared.",
        example="opnsense.user: {name: operator, password: !env OPERATOR_PASSWORD, descr: night shift}",
    ),
    KindRow(
        short="group",
        path="auth/group",
        verbs=PLAIN,
        label="{name}",
        phase=111,
        own_privilege="page-system-usermanager",
        protected=("admins",),
        omit=("gid", "scope"),
        summary="A local group of users and its privileges.",
        example=(
            "opnsense.group: {name: netops, description: network operators, priv: [page-firewall-alias-edit]}"
        ),
    ),
)
