/* The vDSO's image, for the proxy to copy. */
	.section .rodata
	.balign 16
	.globl	vdso_begin, vdso_end
	.hidden	vdso_begin, vdso_end
vdso_begin:
	.incbin VDSO_FILE
vdso_end:
	.section .note.GNU-stack, "", @progbits
