; run: insert-gates{kind=units,unit=masked,gater=3}
; expect: metric layers-gated == 1
; expect: ops stochastic-gate == 1
; expect: ops random == 1
; expect: ops matmul == 4
; expect: remark gate-done 6 units get gates of a net of 3 units
planish-ir 1
graph @"main"(v0 "x": f32[2,4]) {
  v1 "w" = const f32[4,6] [-0.5, 0.2, -0.2, 0.5, 0.1, -0.3, 0.4, 0.0, -0.4, 0.3, -0.1, -0.5, 0.2, -0.2, 0.5, 0.1, -0.3, 0.4, 0.0, -0.4, 0.3, -0.1, -0.5, 0.2]
  v2 "b" = const f32[6] [-0.5, 0.2, -0.2, 0.5, 0.1, -0.3]
  v3 "out" = const f32[6,2] [-0.5, 0.2, -0.2, 0.5, 0.1, -0.3, 0.4, 0.0, -0.4, 0.3, -0.1, -0.5]
  v4 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[2,6] @"hidden"
  v5 = binary{kind=add} v4, v2 : f32[2,6]
  v6 = unary{kind=relu} v5 : f32[2,6]
  v7 = matmul{trans_a=false, trans_b=false} v6, v3 : f32[2,2] @"last"
  return v7 "y"
}
