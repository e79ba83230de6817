/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Shared by tar-unpack.c and tar-filters.c. */

#include <archive.h>

#include "shared/tar.h"

struct TarFilters {
        void (*add)(struct archive *a);
};
