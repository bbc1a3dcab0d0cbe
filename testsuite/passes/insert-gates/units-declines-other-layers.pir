; run: insert-gates{kind=units,exclude=named}
; expect: remark gate-skipped last: left alone, what it gives does not go to one product only
; expect: remark gate-skipped convolution: left alone, only matrix products have units
; expect: remark gate-skipped free: left alone, its weights are no constant
; expect: remark gate-skipped named: left alone
; expect: no remark gate-done
; expect: ops stochastic-gate == 0
planish-ir 1
graph @"main"(v0 "x": f32[2,4], v1 "m": f32[4,4], v2 "p": f32[1,1,2,2]) {
  v3 = const f32[4,4] [-0.5, 0.2, -0.2, 0.5, 0.1, -0.3, 0.4, 0.0, -0.4, 0.3, -0.1, -0.5, 0.2, -0.2, 0.5, 0.1]
  v4 = const f32[1,1,1,1] [0.5]
  v5 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[2,4] @"free"
  v6 = matmul{trans_a=false, trans_b=false} v5, v3 : f32[2,4] @"named"
  v7 = matmul{trans_a=false, trans_b=false} v6, v3 : f32[2,4] @"last"
  v8 = conv{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1} v2, v4 : f32[1,1,2,2] @"convolution"
  return v7 "y", v8 "z"
}
