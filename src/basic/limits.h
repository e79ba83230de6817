/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Every bound on what a client, a guest or a file can make us do (threats.md §1.6). One place, named,
 * tested. */

#include "basic/macro.h"

/* capsule */
#define VCPUS_MIN        1U
#define VCPUS_MAX        32U
#define MEMORY_BYTES_MIN (128 * MIB)
#define MEMORY_BYTES_MAX (256 * GIB)
#define DISK_BYTES_MIN   (64 * MIB)
#define DISK_BYTES_MAX   (2048 * GIB)
#define DISK_BYTES_STEP  (4 * KIB)
#define TIMEOUT_USEC_MAX (31ULL * 24 * 3600 * USEC_PER_SEC)
#define CAPSULE_ID_LEN   28U /* "cl-" + 25 */
#define NAME_MAX_LEN     64U /* templates, keys: [a-zA-Z0-9][a-zA-Z0-9._-]{0,63} */
#define TEAM_MAX_LEN     32U /* [a-z0-9_]{1,32}: part of a slice name, hence no '-' */
#define TAG_MAX_LEN      64U
#define LABELS_MAX       64U
#define LABEL_LEN_MAX    256U

/* a process in the guest */
#define ARGV_MAX          1024U
#define ENV_MAX           256U
#define ENV_ENTRY_LEN_MAX (4 * KIB)
/* sum of argv and sum of env, each; MAX_ARG_STRLEN of execve(2) */
#define ARGV_ENV_BYTES_MAX (128 * KIB)
#define CWD_LEN_MAX        4096U
/* captured output of one foreground exec, both streams together */
#define EXEC_OUTPUT_MAX       (64 * MIB)
#define EXEC_TIMEOUT_USEC_MAX (31ULL * 24 * 3600 * USEC_PER_SEC)
#define PROCESSES_MAX         512U       /* of the API, alive, in one guest */
#define SIGNAL_MAX            64U        /* SIGRTMAX */
#define PROCESS_RING_BYTES    (64 * KIB) /* tail kept for a late reader */
#define PROCESS_ENDED_MAX     64U        /* ended processes whose tail and exit code are kept */
/* a reader that takes nothing for so long, while others of the same process wait for it, is dropped */
#define READER_STALL_USEC (30 * USEC_PER_SEC)

/* control.sock, QMP, data.sock */
#define JSON_MESSAGE_MAX    (64 * KIB)  /* one line of control.sock */
#define QMP_MESSAGE_MAX     (256 * KIB) /* one line of QMP: query-* answers are larger */
#define JSON_DEPTH_MAX      32U
#define JSON_QUEUE_MAX      (1 * MIB) /* unsent bytes after which the peer is dropped */
#define JSON_FDS_MAX        8U        /* fds of one message */
#define CALLS_MAX           256U      /* unanswered calls on one control connection */
#define CONTROL_CLIENTS_MAX 4U
#define DATA_CLIENTS_MAX    64U
/* concurrent streams to one agent: WebSockets, requests, D-Bus callers */
#define H2_STREAMS_MAX      128U
#define H2_HEADER_BYTES_MAX (16 * KIB) /* one header block, decoded */
/* receive window of a stream; of a connection: 16 times that, between monitor and agent H2_STREAMS_MAX times
 */
#define H2_WINDOW_BYTES    (256 * KIB)
#define H2_QUEUE_BYTES_MAX (256 * KIB) /* unsent DATA of one stream */
#define H2_HEADERS_MAX     64U         /* header fields we send, pseudo ones included */
/* unsent answers to PING and SETTINGS after which the peer is dropped */
#define H2_ACKS_MAX 64U
/* unsent frames beside DATA after which the peer is dropped */
#define H2_FRAMES_MAX          1024U
#define H2_RESETS_BURST        1000U       /* streams a client may open and reset at once… */
#define H2_RESETS_PER_SEC      100U        /* …and later */
#define AGENT_JSON_MAX         (512 * KIB) /* JSON body of an agent request */
#define CONSOLE_RING_BYTES     (256 * KIB)
#define CONSOLE_RATE_BYTES_SEC (64 * KIB)
#define CONSOLE_BURST_BYTES    (1 * MIB)

/* monitor and launcher */
#define AGENT_FAULTS_MAX    8U  /* broken sessions after which an agent is given up */
#define AGENT_ENTROPY_BYTES 64U /* of each PUT /identity */
#define AGENT_FEATURES_MAX  32U
#define AGENT_TEXT_MAX      64U /* the agent's version, and each feature */
#define CONSOLE_READERS_MAX 8U
#define GUEST_PROCESSES_MAX 64U /* of verbs 'exec' and 'attach', at once */
#define TRANSFERS_MAX       32U /* of verb 'request', at once */
/* of verb 'request': a path with its query, below H2_HEADER_BYTES_MAX */
#define REQUEST_PATH_MAX (15 * KIB)
/* window of a data.sock client's stream: what a relay can be made to hold */
#define RELAY_WINDOW_BYTES (128 * KIB)
#define VMM_DISKS_MAX      8U
#define VMM_PATH_LEN_MAX   1024U
#define VMM_STDERR_BYTES   4096U /* tail kept for the error message */
#define LAUNCH_FDS_MAX     32U   /* --keep-fd */
#define LAUNCH_BINDS_MAX   512U  /* --bind, --bind-ro, --dev */
#define LAUNCH_NOFILE      1024U /* RLIMIT_NOFILE in the jail */

/* HTTP front end */
#define HTTP_HEADER_BLOCK_MAX         (16 * KIB)
#define HTTP_HEADERS_MAX              100U
#define HTTP_URI_MAX                  (8 * KIB)
#define HTTP_BODY_MAX                 (64 * KIB)  /* JSON of control requests */
#define HTTP_EXEC_BODY_MAX            (512 * KIB) /* must hold argv and env */
#define HTTP_CONNECTIONS_MAX          4096U
#define HTTP_CONNECTIONS_PER_PEER_MAX 256U
#define HTTP_FIRST_BYTE_USEC          (5 * USEC_PER_SEC)
#define HTTP_HEAD_USEC                (10 * USEC_PER_SEC)
#define HTTP_BODY_RATE_BYTES          KIB                 /* per second, after HTTP_HEAD_USEC */
#define HTTP_IDLE_USEC                (75 * USEC_PER_SEC) /* keep-alive between requests */
#define HTTP_WRITE_STALL_USEC         (30 * USEC_PER_SEC)
#define HTTP_CONNECTIONS_RESERVE      16U /* the last ones are kept for root on the Unix socket */
#define HTTP_CONNECTIONS_PER_KEY_MAX  256U
/* a refused client may read its answer for so long */
#define HTTP_LINGER_USEC  (1 * USEC_PER_SEC)
#define HTTP_LINGER_BYTES (64 * KIB) /* and send so much more, unread */
#define HTTP_RELAY_BYTES  (64 * KIB) /* of one connection, buffered, each way */
/* a streamed body or answer may pause for so long */
#define HTTP_STREAM_IDLE_USEC (3600 * USEC_PER_SEC)
/* a client whose upload is answered early may read the answer for so long, and send FILE_WRITE_BODY_MAX more
 */
#define HTTP_LINGER_UPLOAD_USEC    (30 * USEC_PER_SEC)
#define HTTP_PEERS_MAX             4096U /* remembered */
#define HTTP_AUTH_FAILURES_BURST   32U   /* of one peer */
#define HTTP_AUTH_FAILURES_PER_SEC 4U
#define KEY_CACHE_MAX              1024U
#define KEY_MISSES_MAX             256U /* unknown keys remembered */
#define KEY_LEN_MAX                256U
#define EXEC_OUTPUT_TOTAL_MAX      (256 * MIB) /* captured at any time by all foreground execs */
#define EXEC_PENDING_MAX           256U        /* execs of one capsule that wait for a stream */
#define REQUESTS_WAITING_MAX       1024U       /* for the daemon to come back */
/* a request waits so long for wrennd to come back */
#define BUS_WAIT_USEC (10 * USEC_PER_SEC)
#define BUS_CALL_USEC (25 * USEC_PER_SEC)
/* a create that takes longer is answered "starting" */
#define CREATE_ANSWER_USEC (4 * USEC_PER_SEC)

/* WebSockets (RFC 6455) */
#define WS_MESSAGE_MAX        (1 * MIB)   /* one message, and one frame */
#define WS_FRAGMENTS_MAX      64U         /* of one message */
#define WS_QUEUE_BYTES_MAX    (256 * KIB) /* unsent, beyond which the producer waits */
#define WS_PER_CAPSULE_MAX    32U
#define WS_FIRST_MESSAGE_USEC (30 * USEC_PER_SEC) /* for "start" or "connect" */
#define WS_CLOSE_USEC         (5 * USEC_PER_SEC)  /* for the peer's Close */
#define WS_PING_USEC          (20 * USEC_PER_SEC) /* without a word of the peer, and between pings */
#define WS_PINGS_MISSED_MAX   2U
#define WS_PONGS_MAX          64U         /* unsent; then only the last ping is answered */
#define WS_BUFFERED_TOTAL_MAX (256 * MIB) /* by all WebSockets, both ways */
#define PTY_COLS_MAX          4096U
#define PTY_ROWS_MAX          4096U
#define PTY_PING_USEC         (25 * USEC_PER_SEC)   /* the JSON message; api.md §2.16 wants one each 30 s */
#define PTY_UNDECIDED_USEC    (250 * USEC_PER_MSEC) /* output is held back for the dialect */
#define PTY_REMEMBERED_USEC   (50 * USEC_PER_MSEC)  /* the same when the key has one */
#define PTY_TAGS_MAX          4096U                 /* terminals whose dialect is remembered */

/* files of the guest */
/* The agent answers a question by then; what takes it longer by its nature: a removal, the end of an upload.
 */
#define AGENT_ANSWER_USEC    (30 * USEC_PER_SEC)
#define AGENT_WORK_USEC      (600 * USEC_PER_SEC)
#define FILE_PATH_LEN_MAX    4096U       /* PATH_MAX */
#define FILE_WRITE_BODY_MAX  (100 * MIB) /* multipart body of files/write; streams have no limit */
#define FILE_DEPTH_MAX       64U         /* of a listing */
#define FILE_ENTRIES_MAX     262144U     /* of one listing */
#define FILE_ENTRY_LEN_MAX   (128 * KIB) /* of one entry, as JSON */
#define FILE_SPOOL_TOTAL_MAX (512 * MIB) /* of all forms whose path comes behind their file */
#define COPY_ENTRIES_MAX     4000000U    /* of an archive that is unpacked into a capsule or out of one */
#define COPY_DIRECTORIES_MAX 262144U     /* of it, whose times are kept */
#define TAR_DEPTH_MAX        256U        /* of a tree that is packed */
#define TAR_LINKS_MAX        65536U      /* files of it with several names that are told once */
/* pieces between the holes of one file; beyond it holes are zeros */
#define TAR_SPARSE_MAX         4096U
#define MULTIPART_BOUNDARY_MAX 70U       /* RFC 2046 §5.1.1 */
#define MULTIPART_HEADERS_MAX  (8 * KIB) /* of one part */
#define MULTIPART_PARTS_MAX    16U

/* D-Bus */
#define BUS_PENDING_PER_UID_MAX 32U
#define BUS_PENDING_MAX         256U
#define DIRECTORY_ENTRIES_MAX   10000U    /* of ListDirectory; CopyFrom and REST have no such bound */
#define DIRECTORY_ANSWER_MAX    (8 * MIB) /* its bytes; a message of the bus holds 32 MiB */
#define LISTINGS_MAX            16U       /* answers of lists of capsules being read, of all callers */
#define FILE_ENTRY_LINE_MAX     (64 * KIB)
#define UNTOLD_EXITS_MAX        1024U /* ends of processes told by monitors before we have the name */
#define COPIES_MAX              64U   /* jobs of CopyTo and CopyFrom */
#define JOBS_MAX                16U
#define KEYS_MAX                4096U
#define KEY_SCOPES_MAX          16U
#define TEMPLATES_MAX           1024U
#define CAPSULES_MAX            1000U               /* alive, default of MaxCapsules= */
#define CAPSULES_STOPPED_MAX    256U                /* records of destroyed capsules that GET still shows */
#define CAPSULE_WAITERS_MAX     64U                 /* callers that wait for the end of one capsule */
#define UID_QUARANTINE_USEC     (60 * USEC_PER_SEC) /* before a jail's uid is used again */
#define LAYER_SIZES_MAX         16U                 /* sizes of empty disks kept ready to copy */

/* network slots */
#define SLOTS_READY_MAX      64U   /* kept ready ahead of time */
#define SLOT_CONNECTIONS_MAX 2500U /* of one guest to the outside, at once */
/* of one guest to the resolver, over TCP; it serves 20 in all */
#define SLOT_DNS_CONNECTIONS_MAX 8U
/* before an index, and with it an address, is used again */
#define SLOT_QUARANTINE_USEC (60 * USEC_PER_SEC)
/* connections of a dead capsule forgotten in one turn of the loop */
#define FLOWS_PER_TURN 256U

/* archives and builds */
#define IMPORT_ENTRIES_MAX      UINT64_C(4000000)
#define IMPORT_BYTES_MAX        (64 * GIB)
#define IMPORT_RATIO_MAX        1000U /* unpacked : packed, beyond the first 64 MiB */
#define IMPORT_RATIO_FREE_BYTES (64 * MIB)
#define IMPORT_ID_MAX           65535U      /* owners: what a user namespace of ours maps */
#define IMPORT_XATTR_MAX        (64 * KIB)  /* one value */
#define IMPORT_DISK_FREE_MIN    (512 * MIB) /* left on the host's disk */
#define TEMPLATE_ALIASES_MAX    8U
#define TEMPLATE_PACKAGES_MAX   512U
#define TEMPLATE_PATHS_MAX      64U  /* patterns */
#define TEMPLATE_TEXT_LEN_MAX   256U /* a description, a pattern, a package */

/* jobs of wrenn-worker */
#define WORKER_LINE_MAX      (512 * KIB) /* one line of its stdout: the result lists all packages */
#define WORKER_REQUEST_MAX   (128 * KIB) /* must fit into a socket's buffer */
#define WORKER_STEP_LEN_MAX  128U
#define JOB_UID_FIRST        1900131072U /* the user namespace of a job, clear of UIDRange= */
#define JOB_UID_COUNT        65536U
#define JOB_MEMORY_MAX       (4 * GIB)
#define JOB_RUNTIME_MAX_USEC (3600 * USEC_PER_SEC)
#define JOB_ORPHANS_MAX      64U
