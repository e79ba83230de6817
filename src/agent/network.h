/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The guest's one interface: loopback up, eth0 with its address and default route. By ioctl: netdevice(7).
 */

#include "basic/macro.h"

/* Loopback up, and eth0 with GUEST_ADDRESS4 when there is one. */
int network_init(void);
/* address: "169.254.0.21/30"; gateway: NULL for none. -ENODEV without eth0, -EINVAL. */
int network_configure(const char *address, const char *gateway);
