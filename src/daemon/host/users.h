/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Names of the host's own users, for polkit's rules. /etc/passwd only: the name service may ask servers and
 * block. */

#include "basic/macro.h"

/* The name of uid, or its decimal number; the caller's. NULL on out of memory. */
char* user_name(uid_t uid);
