/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <jansson.h>

#include "ctl/ctl.h"

/* What a path in the capsule is: the entry as StatPath tells it; NULL when there is none and may_lack is
 * set. Exit status as ctl_send(). */
int capsule_stat(Ctl *ctl, const char *object, const char *path, bool may_lack, json_t **ret);
