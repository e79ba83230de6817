/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What archives are compressed with; see tar.h. */

#include "shared/tar-internal.h"

static void filters_add(struct archive *a) {
        (void) archive_read_support_filter_gzip(a);
        (void) archive_read_support_filter_bzip2(a);
        (void) archive_read_support_filter_xz(a);
        (void) archive_read_support_filter_zstd(a);
}

const TarFilters tar_filters = { filters_add };
