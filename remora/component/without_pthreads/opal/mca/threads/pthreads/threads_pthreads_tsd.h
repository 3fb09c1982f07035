/* As threads_pthreads_mutex.h. */
#ifndef REMORA_THREADS_PTHREADS_TSD_H
#define REMORA_THREADS_PTHREADS_TSD_H

#include <pthread.h>

typedef pthread_key_t opal_tsd_key_t;

#endif
