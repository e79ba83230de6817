/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* org.freedesktop.LogControl1(5): systemctl service-log-level. The bus policy lets only root set properties.
 */

#include <systemd/sd-bus.h>

/* Exports the object. 0 or -errno. */
int bus_log_control_add(sd_bus *bus);
