/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <arpa/inet.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "agent/network.h"
#include "basic/fd.h"
#include "basic/files.h"
#include "basic/strings.h"
#include "shared/protocol.h"

static struct sockaddr_in address_of(uint32_t host_order) {
        return (struct sockaddr_in) { .sin_family = AF_INET, .sin_addr.s_addr = htonl(host_order) };
}

static int interface_up(int fd, const char *name) {
        struct ifreq request = {};

        (void) snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
        if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
                return -errno;
        if (request.ifr_flags & IFF_UP)
                return 0;

        request.ifr_flags |= IFF_UP;
        return ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? -errno : 0;
}

static int interface_set_address(int fd, const char *name, unsigned long operation, uint32_t host_order) {
        struct sockaddr_in address = address_of(host_order);
        struct ifreq request = {};

        (void) snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
        memcpy(&request.ifr_addr, &address, sizeof(address));
        return ioctl(fd, operation, &request) < 0 ? -errno : 0;
}

static int default_route(int fd, uint32_t gateway_host_order) {
        struct sockaddr_in gateway = address_of(gateway_host_order), any = address_of(0);
        struct rtentry route = { .rt_flags = RTF_UP | RTF_GATEWAY, .rt_dev = (char *) GUEST_IFNAME };

        memcpy(&route.rt_dst, &any, sizeof(any));
        memcpy(&route.rt_genmask, &any, sizeof(any));
        memcpy(&route.rt_gateway, &gateway, sizeof(gateway));
        if (ioctl(fd, SIOCADDRT, &route) < 0 && errno != EEXIST)
                return -errno;

        return 0;
}

int network_configure(const char *address, const char *gateway) {
        _cleanup_close_ int fd = -EBADF;
        struct in_addr a, g;
        char text[64];
        uint32_t prefix;
        char *slash;
        int r;

        (void) snprintf(text, sizeof(text), "%s", address);
        slash = strchr(text, '/');
        if (!slash)
                return -EINVAL;
        *slash++ = '\0';
        if (inet_pton(AF_INET, text, &a) != 1 || parse_u32(slash, &prefix) < 0 || prefix > 32)
                return -EINVAL;
        if (gateway && inet_pton(AF_INET, gateway, &g) != 1)
                return -EINVAL;

        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;

        r = interface_set_address(fd, GUEST_IFNAME, SIOCSIFADDR, ntohl(a.s_addr));
        if (r >= 0)
                r = interface_set_address(fd, GUEST_IFNAME, SIOCSIFNETMASK,
                                          prefix == 0 ? 0 : UINT32_MAX << (32 - prefix));
        if (r >= 0)
                r = interface_up(fd, GUEST_IFNAME);
        if (r >= 0 && gateway)
                r = default_route(fd, ntohl(g.s_addr));
        return r;
}

int network_init(void) {
        _cleanup_close_ int fd = -EBADF;
        char address[32];
        int r;

        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;

        r = interface_up(fd, "lo");
        if (r < 0)
                return r;

        /* IPv4 only (api.md §6.4): no router solicitations, no duplicate address detection. */
        (void) write_file_at(AT_FDCWD, "/proc/sys/net/ipv6/conf/" GUEST_IFNAME "/disable_ipv6", "1", 1);
        (void) snprintf(address, sizeof(address), "%s/%u", GUEST_ADDRESS4, GUEST_PREFIXLEN4);
        r = network_configure(address, GUEST_GATEWAY4);
        return r == -ENODEV ? 0 : r;
}
